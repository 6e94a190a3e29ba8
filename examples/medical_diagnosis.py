"""Diagnose breast tumours from 30 measurements of cell nuclei: a Keras script whose imports say fastnn.

Data: the Wisconsin diagnostic data, as scikit-learn carries them. Needs pandas and scikit-learn.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import fastnn
from fastnn.layers import Dense
from fastnn.models import Sequential

fastnn.set_seed(42)

# The table, without incomplete rows. scikit-learn writes malignant as 0; here malignant is 1, the positive class.
data = load_breast_cancer(as_frame=True)
table = data.frame.dropna()
x = table.drop(columns="target").to_numpy(np.float32)
y = (table["target"] == list(data.target_names).index("malignant")).to_numpy(np.float32)

# First split, then standardize with what the training rows alone say. The label is left as it is.
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=42)
mean, deviation = x_train.mean(axis=0), x_train.std(axis=0)
x_train, x_test = (x_train - mean) / deviation, (x_test - mean) / deviation

model = Sequential(
    [
        Dense(64, activation="relu", input_shape=(30,)),
        Dense(32, activation="relu"),
        Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
history = model.fit(x_train, y_train, epochs=100, batch_size=32, validation_split=0.2)

malignant = model.predict(x_test)[:, 0] > 0.5
accuracy = np.mean(malignant == (y_test == 1))
recall = np.mean(malignant[y_test == 1])

print(f"validation accuracy after {len(history.epoch)} epochs: {history.history['val_accuracy'][-1]:.4f}")
print(f"on {len(y_test)} held-out rows, positive class malignant:")
print(f"accuracy: {accuracy:.4f}")
print(f"recall: {recall:.4f}")
